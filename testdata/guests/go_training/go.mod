module go_training

go 1.24
